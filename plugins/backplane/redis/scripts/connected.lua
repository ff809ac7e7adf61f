-- Adds devices. KEYS: the hash of users. ARGV: 'again' for devices that Redis may have lost, or ''; then for each
-- device: user, client id, the device as JSON. What is told again does not replace a connection to another gateway,
-- which is a later one. Returns for each how many devices the user has, and the earlier entry of this one or ''.
local result = {}
for i = 2, #ARGV, 3 do
  local devices = cjson.decode(redis.call('HGET', KEYS[1], ARGV[i]) or '{}')
  local before, device = devices[ARGV[i + 1]], cjson.decode(ARGV[i + 2])
  if not before or ARGV[1] == '' or before.gateway == device.gateway then
    devices[ARGV[i + 1]] = device
    redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(devices))
  end
  local count = 0
  for _ in pairs(devices) do
    count = count + 1
  end
  result[#result + 1] = count
  result[#result + 1] = before and cjson.encode(before) or ''
end
return result
