// A chat client on mqtt.js, driven by a test:  node chat.mjs ws://HOST:PORT/mqtt USER PASSWORD
//
// Takes one command a line on standard input, as JSON, until that is closed:
//   {"do": "subscribe", "filters": ["…"], "qos": 1}
//   {"do": "publish", "topic": "…", "payload": "base64", "qos": 1}
// and prints one event a line:
//   {"event": "connack", "code": 0}               5 and the end if the login was refused
//   {"event": "suback", "granted": [1]}
//   {"event": "puback"}                           when the publish is acknowledged
//   {"event": "message", "topic": "…", "payload": "base64", "qos": 1}
//   {"event": "error", "detail": "…"}             and the end

import { createInterface } from 'node:readline'

import mqtt from 'mqtt'

const [url, username, password] = process.argv.slice(2)

function print(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

const client = mqtt.connect(url, { username, password, reconnectPeriod: 0 })

client.on('connect', () => print({ event: 'connack', code: 0 }))

client.on('error', (error) => {
  const refused = !client.connected && typeof error.code === 'number'
  print(refused ? { event: 'connack', code: error.code } : { event: 'error', detail: String(error) })
  client.end(true, () => process.exit(1))
})

client.on('message', (topic, payload, packet) => {
  print({ event: 'message', topic, payload: payload.toString('base64'), qos: packet.qos })
})

const commands = {
  async subscribe({ filters, qos }) {
    const granted = await client.subscribeAsync(filters, { qos })
    print({ event: 'suback', granted: granted.map((each) => each.qos) })
  },

  async publish({ topic, payload, qos }) {
    await client.publishAsync(topic, Buffer.from(payload, 'base64'), { qos })
    print({ event: 'puback' })
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  try {
    await commands[command.do](command)
  } catch (error) {
    print({ event: 'error', detail: String(error) })
  }
}
await client.endAsync()
