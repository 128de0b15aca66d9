// Writes verifier.json: manifests, signatures by one and by many signers, and
// what hypercore 11.37.1 thinks of them, also where something is wrong with
// them. Run it where the modules are:
//
//	cd test/data && node ../../data/manifest/testdata/verifier.js > ../../data/manifest/testdata/verifier.json
const path = require('path')
const modules = path.join(process.cwd(), 'node_modules')
const load = (name) => require(path.join(modules, name))
const crypto = load('hypercore-crypto')
const sodium = load('sodium-universal')
const Verifier = load('hypercore/lib/verifier.js')
const multisig = load('hypercore/lib/multisig.js')
const { MerkleTreeBatch } = load('hypercore/lib/merkle-tree.js')

const pairs = [1, 2, 3, 4].map((n) => crypto.keyPair(Buffer.alloc(32, n)))
const nss = [undefined, Buffer.alloc(32, 0x42)]

function tree (length, fork, change) {
  const t = new MerkleTreeBatch({ fork, roots: [], length: 0, byteLength: 0, signature: null, prologue: null, storage: null })
  for (let i = 0; i < length; i++) t.append(Buffer.from((i === change ? 'other-' : 'block-') + i))
  return t
}

// The nodes that grow a tree from one length to another: those a batch is given.
function patchNodes (from, to) {
  const flat = load('flat-tree')
  const all = new Map()
  for (const n of tree(to, 0).nodes) all.set(n.index, n)
  const nodes = []
  for (let s = from; s < to;) {
    let size = 1
    while (s % (size * 2) === 0 && s + size * 2 <= to) size *= 2
    nodes.push(all.get(flat.index(Math.log2(size), s / size)))
    s += size
  }
  return nodes
}

const hex = (b) => b ? b.toString('hex') : null
const cases = []

function add (name, input, opts, signature, length, fork, change) {
  const manifest = Verifier.createManifest(input)
  const key = opts.compat ? manifest.signers[0].publicKey : Verifier.manifestHash(manifest)
  const t = tree(length, fork, change)
  let good = false
  try {
    good = !!new Verifier(key, manifest, opts).verify(t, signature)
  } catch {}
  cases.push({ name, manifest: hex(Verifier.encodeManifest(manifest)), key: hex(key), compat: !!opts.compat, length, fork, change: change === undefined ? -1 : change, signature: hex(signature), good })
}

function signOne (input, opts, pair, length, fork) {
  const manifest = Verifier.createManifest(input)
  const key = opts.compat ? manifest.signers[0].publicKey : Verifier.manifestHash(manifest)
  return new Verifier(key, manifest, opts).sign(tree(length, fork), pair)
}

function raw (input, pair, length, fork) {
  const s = signOne(input, {}, pair, length, fork)
  return s.byteLength === 64 ? s : multisig.inflate(s).proofs[0].signature
}

const signers = (n) => pairs.slice(0, n).map((p, i) => ({ publicKey: p.publicKey, namespace: nss[i & 1] }))

// One signer.
for (const version of [0, 1, 2, 3]) {
  for (const ns of nss) {
    const m = { version, signers: [{ publicKey: pairs[0].publicKey, namespace: ns }] }
    for (const compat of [false, true]) {
      const s = signOne(m, { compat }, pairs[0], 5, 3)
      const name = 'version ' + version + (compat ? ' compat' : '') + (ns ? ' namespace' : '')
      add(name, m, { compat }, s, 5, 3)
      add(name + ', another fork', m, { compat }, s, 5, 2)
      add(name + ', another length', m, { compat }, s, 6, 3)
      add(name + ', another block', m, { compat }, s, 5, 3, 2)
      add(name + ', not signed', m, { compat }, Buffer.alloc(0), 5, 3)
      add(name + ', cut', m, { compat }, s.subarray(0, s.byteLength - 1), 5, 3)
      add(name + ', and more', m, { compat }, Buffer.concat([s, Buffer.alloc(1)]), 5, 3)
    }
  }
}
add('length 0', { version: 1, signers: signers(1) }, {}, signOne({ version: 1, signers: signers(1) }, {}, pairs[0], 0, 7), 0, 7)

// Many signers, with and without patches.
for (const version of [0, 1, 2]) {
  for (const allowPatch of [false, true]) {
    const m = { version, allowPatch, quorum: 2, signers: signers(3) }
    const full = Verifier.createManifest(m)
    const v = new Verifier(Verifier.manifestHash(full), full)
    const part = (i, length, to) => ({ signer: i, signature: raw(m, pairs[i], to || length, 0), patch: to ? to - length : 0, nodes: to ? patchNodes(length, to) : null })
    const name = (s) => 'version ' + version + (allowPatch ? ' patch, ' : ', ') + s
    const put = (s, inputs, length) => add(name(s), m, {}, v.assemble(inputs), length, 0)
    put('two of three', [part(0, 4), part(1, 4)], 4)
    put('the other two', [part(2, 4), part(1, 4)], 4)
    put('one', [part(0, 4)], 4)
    put('one twice', [part(0, 4), part(0, 4)], 4)
    put('three', [part(0, 4), part(1, 4), part(2, 4)], 4)
    put('a third that is bad', [part(0, 4), part(1, 4), { ...part(2, 4), signature: Buffer.alloc(64, 1) }], 4)
    put('a first that is bad', [{ ...part(2, 4), signature: Buffer.alloc(64, 1) }, part(0, 4), part(1, 4)], 4)
    put('no such signer', [part(0, 4), { ...part(1, 4), signer: 3 }], 4)
    put('one who signed more', [part(0, 4), part(1, 4, 7)], 4)
    put('two who signed more', [part(0, 5, 13), part(2, 5, 6)], 5)
    put('all who signed the same', [part(0, 3, 11), part(1, 3, 11), part(2, 3, 11)], 3)
    put('more from nothing', [part(0, 0, 4), part(1, 0, 6)], 0)
    put('a wrong patch', [part(0, 4), { ...part(1, 4, 7), patch: 2 }], 4)
    put('a patch to what is here', [part(0, 4), { ...part(1, 4, 7), nodes: patchNodes(4, 7).slice(1) }], 4)
    put('not a patch', [part(0, 4), { ...part(1, 4), patch: allowPatch ? 0 : 1, nodes: allowPatch ? null : patchNodes(4, 5) }], 4)
    const many = v.assemble([part(0, 4), part(1, 4)])
    add(name('another length'), m, {}, many, 5, 0)
    add(name('another fork'), m, {}, many, 4, 1)
    add(name('cut'), m, {}, many.subarray(0, 70), 4, 0)
  }
  const none = { version, quorum: 0, signers: signers(2) }
  const f = Verifier.createManifest(none)
  add('version ' + version + ', nobody can', none, {}, new Verifier(Verifier.manifestHash(f), f).assemble([{ signer: 0, signature: raw(none, pairs[0], 4, 0), patch: 0, nodes: null }]), 4, 0)
}

// Prologues.
const prologue = { hash: tree(5, 0).hash(), length: 5 }
for (const n of [0, 1]) {
  const m = { version: 1, prologue, signers: signers(n), quorum: n }
  for (const length of [0, 4, 5, 6, 8]) {
    const s = n ? signOne(m, {}, pairs[0], length, 0) : Buffer.alloc(0)
    add('prologue, ' + n + ' signers, ' + length + ' blocks', m, {}, s, length, 0)
    add('prologue, ' + n + ' signers, ' + length + ' blocks, not signed', m, {}, Buffer.alloc(0), length, 0)
    add('prologue, ' + n + ' signers, ' + length + ' blocks, another', m, {}, s, length, 0, 1)
  }
}
add('prologue of version 0', { version: 0, prologue: { hash: prologue.hash, length: 0 }, signers: [], quorum: 0 }, {}, Buffer.alloc(0), 5, 0)

// What libsodium thinks of public keys and signatures that are odd.
const odd = []
function verify (name, publicKey, message, signature) {
  let good = false
  try {
    good = sodium.crypto_sign_verify_detached(signature, message, publicKey)
  } catch {}
  odd.push({ name, publicKey: hex(publicKey), message: hex(message), signature: hex(signature), good })
}
const message = Buffer.from('hello')
const good = crypto.sign(message, pairs[0].secretKey)
const order = Buffer.from('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010', 'hex')
verify('good', pairs[0].publicKey, message, good)
for (const [at, bit] of [[0, 1], [31, 128], [32, 1], [63, 128], [63, 32]]) {
  const s = Buffer.from(good)
  s[at] ^= bit
  verify('a bit of byte ' + at, pairs[0].publicKey, message, s)
}
const above = Buffer.from(good) // S + L is the same number, and another text
for (let i = 0, carry = 0; i < 32; i++) {
  carry += above[32 + i] + order[i]
  above[32 + i] = carry & 255
  carry >>= 8
}
verify('S above the order', pairs[0].publicKey, message, above)
const small = ['00', '01', '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ec' + 'ff'.repeat(30) + '7f', 'ed' + 'ff'.repeat(30) + '7f', 'ee' + 'ff'.repeat(30) + '7f',
  'ef' + 'ff'.repeat(30) + '7f', 'f0' + 'ff'.repeat(30) + '7f', 'ff'.repeat(31) + '7f', '02', '03']
for (const s of small) {
  for (const sign of [0, 128]) {
    const point = Buffer.alloc(32)
    Buffer.from(s, 'hex').copy(point)
    point[31] |= sign
    const zero = Buffer.alloc(64)
    point.copy(zero)
    verify('public key and R ' + hex(point), point, message, zero)
    const identity = Buffer.alloc(64)
    identity[0] = 1
    verify('public key ' + hex(point), point, message, identity)
    verify('R ' + hex(point), pairs[0].publicKey, message, zero)
    verify('public key with another R ' + hex(point), point, message, good)
  }
}

// What the least and the common lengths are that can be signed for.
const lengths = []
for (const [list, quorum] of [[[4, 7], 2], [[4, 7], 1], [[9, 1, 5], 2], [[9, 1, 5], 3], [[9, 1, 5], 0], [[9], 2], [[], 0], [[3, 3, 2, 1], 2]]) {
  lengths.push({ lengths: [...list], quorum, length: multisig.signableLength([...list], quorum) || 0 })
}
console.log(JSON.stringify({ source: 'hypercore 11.37.1, sodium-native 5.1.0', cases, odd, lengths }, null, 1))
