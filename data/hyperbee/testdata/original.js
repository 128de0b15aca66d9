// The original, told what to do: a line of JSON on stdin is one step, and a
// line on stdout is what a read answers. At the end it prints the log's blocks.
//
//   node original.js FOLDER OPTIONS < steps
const readline = require('readline')
const Hypercore = require('hypercore')
const Hyperbee = require('hyperbee')

const bytes = hex => (hex === null || hex === undefined ? hex : Buffer.from(hex, 'hex'))
const hex = b => (b === null || b === undefined ? '-' : b.toString('hex') || '.')
const entry = e => (e ? `${e.seq} ${hex(e.key)} ${hex(e.value)}` : '-')

function range (r) {
  r = r || {}
  const out = {}
  for (const k of ['gt', 'gte', 'lt', 'lte']) if (typeof r[k] === 'string') out[k] = bytes(r[k])
  if (r.reverse) out.reverse = true
  if (r.limit) out.limit = r.limit
  return out
}

async function list (stream, show) {
  const all = []
  for await (const x of stream) all.push(show(x))
  return all.join(',')
}

async function write (to, s) {
  const opts = 'allow' in s ? { cas: () => s.allow } : {}
  if (s.op === 'put') await to.put(bytes(s.key), bytes(s.value), opts)
  else await to.del(bytes(s.key), opts)
}

async function step (bee, s) {
  switch (s.op) {
    case 'put':
    case 'del': return write(bee, s)
    case 'batch': {
      const batch = bee.batch()
      for (const o of s.ops) await write(batch, o)
      return batch.flush()
    }
    case 'get': return console.log(entry(await bee.get(bytes(s.key))))
    case 'range': {
      const from = s.version ? bee.checkout(s.version) : bee
      return console.log(await list(from.createReadStream(range(s.range)), entry))
    }
    case 'sub': return console.log(await list(bee.sub(s.name).createReadStream(range(s.range)), entry))
    case 'diff': return console.log(await list(bee.createDiffStream(s.version, range(s.range)), d => entry(d.left) + '|' + entry(d.right)))
    case 'history': return console.log(await list(bee.createHistoryStream(s.span || {}), e => e.type + ' ' + entry(e)))
  }
  throw new Error('unknown step ' + s.op)
}

async function main () {
  const core = new Hypercore(process.argv[2])
  const bee = new Hyperbee(core, JSON.parse(process.argv[3]))
  await bee.ready()
  for await (const line of readline.createInterface({ input: process.stdin })) await step(bee, JSON.parse(line))
  for (let i = 0; i < core.length; i++) console.log('block ' + hex(await core.get(i)))
  await bee.close()
}

main().catch(err => { console.error(err); process.exit(1) })
