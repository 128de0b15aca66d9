// Package hypercore is a signed append-only log, byte for byte that of the
// JavaScript module hypercore 11: who has its key can have it from anybody, and
// check that it is what its writer wrote.
//
//	store, err := storage.Open("data", storage.Options{})
//	log, err := hypercore.Create(store, hypercore.Options{})  // a new key pair, kept in the store
//	length, err := log.Append([]byte("hello"), []byte("world")) // both or none
//	err = log.Sync()                                          // now they are on disk
//	block, err := log.Get(ctx, 1)
//
// Package corestore gives logs names and does without most of the keys below;
// a program that has more than one log begins there.
//
// # Keys
//
// Key names the log and is all that a reader needs. It is the hash of the
// manifest, which says whose signatures the log must bear: by default that of one
// key pair. A log may have several signers, of whom a quorum signs each head
// (Draft, AppendSigned), none at all, when it never changes (manifest.Static), or
// blocks to begin with that were signed by nobody (a prologue). Options.Compat is
// for logs from before manifests, whose key is the signer's own.
//
// Open with a key that the store does not know makes an empty log, to be filled
// by peers. DiscoveryKey, a hash of Key, is what peers may find each other by
// without telling what they look for.
//
// # Reading
//
// Get returns a block, and waits for one that is not here until a peer has sent
// it or ctx ends; Local does not wait. Blocks yields a Range of them, backwards
// and live if asked to; NewReader reads bytes across blocks, and Seek finds the
// block of a byte. Has, NextMissing and Contiguous say what is here, Download gets
// it here, and Clear gives the room back. Watch and Changes tell of what happens.
//
// # Sessions and snapshots
//
// A Core is a session: any number may be open on one log, and each is closed by
// who opened it. Snapshot opens one on the log as it is: it does not grow, and
// keeps what a truncation takes away.
//
// # Truncating
//
// Truncate cuts the log, which may then grow in another way: its Fork goes up, so
// that peers can tell that from a writer who contradicts themselves. They keep
// what both have in common.
//
// # Encryption
//
// With Options.Encryption blocks are encrypted before they are hashed. Peers who
// have only Key can hold, check and pass on such a log, and not read it.
//
// # Replication
//
// Package protocol brings peers' logs up to date over any connection:
//
//	err := protocol.Replicate(ctx, conn, initiator, log, protocol.Options{})
//
// It builds on Prove, which answers a peer's request with blocks and the hashes
// that prove them, and on Apply, which checks such an answer against the key and
// stores it: nothing that is not signed gets in.
//
// # What is on disk when
//
// An append, a truncation or what a peer sent is in the store whole or not at
// all, whatever happens to the process. It is there after a loss of power, too,
// when a Sync that began later has returned. Where the disk fails or is full, what
// was to be changed is as before and the store refuses further changes, saying
// why, until it is opened again; what is here can be read. Audit reads everything
// that is here and checks it.
//
// # Limits
//
// A block has at most MaxBlock bytes. Lengths, bytes and forks go to 2^53, which
// is as far as the original can count; bytes of a log to 2^64. The original's
// state of a log whose writer was proved to contradict themselves is not kept, and
// nothing is pushed to readers that did not ask.
package hypercore
