-- Renews turns. KEYS: owners of logs. ARGV: the node, the lease in ms.
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
return 1
