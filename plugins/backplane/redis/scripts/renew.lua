-- Renews turns. KEYS: what the keys of logs begin with. ARGV: a msgpack array of the process, the lease in ms and logs.
-- A turn that has lapsed is renewed if nobody has taken the log meanwhile.
local me, lease, logs = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + lease
for _, log in ipairs(logs) do
  if redis.call('HGET', KEYS[1] .. log, 'owner') == me then
    redis.call('HSET', KEYS[1] .. log, 'until', till)
  end
end
return 1
