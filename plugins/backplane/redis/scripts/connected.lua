-- Adds a device. KEYS: the hash of users. ARGV: user, client id, the device as JSON. Returns how many devices the
-- user has, and the earlier entry of this one or ''.
local devices = cjson.decode(redis.call('HGET', KEYS[1], ARGV[1]) or '{}')
local before = devices[ARGV[2]]
devices[ARGV[2]] = cjson.decode(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(devices))
local count = 0
for _ in pairs(devices) do
  count = count + 1
end
return { count, before and cjson.encode(before) or '' }
