-- Removes the devices of a gateway. KEYS: the hash of users. ARGV: the gateway, then users. Returns for each user
-- who had a device there how many remain, and -1 for the others.
local result = {}
for i = 2, #ARGV do
  local devices = cjson.decode(redis.call('HGET', KEYS[1], ARGV[i]) or '{}')
  local count, had = 0, false
  for id, device in pairs(devices) do
    if device.gateway == ARGV[1] then
      devices[id] = nil
      had = true
    else
      count = count + 1
    end
  end
  if had and count == 0 then
    redis.call('HDEL', KEYS[1], ARGV[i])
  elseif had then
    redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(devices))
  end
  result[#result + 1] = had and count or -1
end
return result
