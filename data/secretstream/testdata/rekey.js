// What libsodium does when the counter of a secretstream wraps, and when a
// message asks for new keys. Argument: the folder that has node_modules.
const path = require('path')
const load = require('module').createRequire(path.resolve(process.argv[2]) + '/')
const sodium = load('sodium-native')

const header = Buffer.alloc(sodium.crypto_secretstream_xchacha20poly1305_HEADERBYTES)
const state = Buffer.alloc(sodium.crypto_secretstream_xchacha20poly1305_STATEBYTES)
sodium.crypto_secretstream_xchacha20poly1305_init_push(state, header, Buffer.alloc(32, 5))
state.fill(0xff, 32, 36) // the counter's last value
const frames = []
const push = (text, tag) => {
  const out = Buffer.alloc(text.length + sodium.crypto_secretstream_xchacha20poly1305_ABYTES)
  sodium.crypto_secretstream_xchacha20poly1305_push(state, out, Buffer.from(text), null, tag)
  frames.push(out.toString('hex'))
}
push('the last of the old key', 0)
push('the first of the new', 0)
push('asks for another', 2)
push('which is in use', 0)
console.log(JSON.stringify({ header: header.toString('hex'), frames }))
