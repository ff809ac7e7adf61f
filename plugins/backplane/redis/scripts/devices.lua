-- One step through all users. KEYS: the hash of users. ARGV: a gateway, the cursor, how many users to look at. Returns
-- the next cursor, then user, client id and connection id of each device of the gateway.
local next, fields = unpack(redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3]))
local result = { next }
for i = 1, #fields, 2 do
  for id, device in pairs(cjson.decode(fields[i + 1])) do
    if device.gateway == ARGV[1] then
      result[#result + 1] = fields[i]
      result[#result + 1] = id
      result[#result + 1] = device.connection_id
    end
  end
end
return result
