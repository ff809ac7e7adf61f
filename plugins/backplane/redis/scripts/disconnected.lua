-- Removes a device, if this is still its connection. KEYS: the hash of users. ARGV: user, client id, connection id.
-- Returns how many devices the user has.
local devices = cjson.decode(redis.call('HGET', KEYS[1], ARGV[1]) or '{}')
local device = devices[ARGV[2]]
if device and device.connection_id == ARGV[3] then
  devices[ARGV[2]] = nil
end
local count = 0
for _ in pairs(devices) do
  count = count + 1
end
if count == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(devices))
end
return count
