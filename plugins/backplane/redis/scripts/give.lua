-- Ends turns. KEYS: owners of logs, then as many heads. ARGV: the node, the lifetime of a head in seconds, then each
-- head, or '' if it is unknown. Only the owner writes a head.
local count = #KEYS / 2
for i = 1, count do
  if redis.call('GET', KEYS[i]) == ARGV[1] then
    redis.call('DEL', KEYS[i])
    if ARGV[2 + i] == '' then
      redis.call('DEL', KEYS[count + i])
    else
      redis.call('SET', KEYS[count + i], ARGV[2 + i], 'EX', ARGV[2])
    end
  else
    redis.call('DEL', KEYS[count + i])
  end
end
return 1
