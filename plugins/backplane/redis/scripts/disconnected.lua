-- Removes devices, if these are still their connections. KEYS: the hash of users. ARGV: for each device: user, client
-- id, connection id. Returns for each how many devices the user has.
local result = {}
for i = 1, #ARGV, 3 do
  local devices = cjson.decode(redis.call('HGET', KEYS[1], ARGV[i]) or '{}')
  local device = devices[ARGV[i + 1]]
  local is_this = device and device.connection_id == ARGV[i + 2]
  if is_this then
    devices[ARGV[i + 1]] = nil
  end
  local count = 0
  for _ in pairs(devices) do
    count = count + 1
  end
  if is_this and count == 0 then
    redis.call('HDEL', KEYS[1], ARGV[i])
  elseif is_this then
    redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(devices))
  end
  result[#result + 1] = count
end
return result
