// Drives the client of docs/clients.md for a test:  node driver.mjs PAGE.MJS
//
// Takes one command a line on standard input, as JSON: {"do": "send", "with": ["users/bob/inbox", "hi"]}
// and prints one line for each: {"result": …} or {"failed": "…"}
// and one line for whatever the client shows: {"show": "message", "value": {…}}

import { createInterface } from 'node:readline'

const page = await import(process.argv[2])
let chat = null

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

function show(kind, value) {
  print({ show: kind, value: value instanceof Error ? String(value) : value })
}

const commands = {
  async logIn(user, password) {
    chat = page.newChat(await page.logIn(user, password), show)
    page.stay(chat)
  },
  comeBack(stored) {
    chat = page.comeBack(stored, show)
    page.stay(chat)
  },
  end() {
    chat.ended = true
    chat.mqtt.end(true)
    return JSON.stringify(chat.state)
  },
  state: () => chat.state,
  send: (...given) => page.send(chat, ...given),
  tick: (message) => page.tick(chat, message),
  markRead: (id) => page.markRead(chat, id),
  typing: (topic) => page.typing(chat, topic),
  history: (...given) => page.history(chat, ...given),
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  try {
    print({ result: (await commands[command.do](...command.with)) ?? null })
  } catch (error) {
    print({ failed: String(error) })
  }
}
process.exit(0)
