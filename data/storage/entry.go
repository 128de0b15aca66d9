package storage

import "encoding/binary"

// An entryHead is what an entry of the log begins with.
type entryHead struct {
	at     position // of the entry itself: bytes of another place, or time, are not taken for it
	synced position // what is before this was on disk when the entry was written

	blocks, changes       uint32 // bytes of each
	blocksSum, changesSum uint32 // their checksums
}

const (
	entryHeadSize   = 40
	segmentHeadSize = 16
)

const segmentMagic = "pal-"

// A mark is what the heads of entries have in common. It is random, and no other
// store's: blocks are a peer's to choose, and must not look like entries to who
// searches for these behind a damaged one.
type mark [8]byte

// encode fills the first bytes of b: half of the mark, a checksum of what follows
// with the other half, and the fields.
func (h entryHead) encode(b []byte, m mark) {
	copy(b, m[:4])
	binary.LittleEndian.PutUint64(b[8:], uint64(h.at))
	binary.LittleEndian.PutUint64(b[16:], uint64(h.synced))
	for i, n := range []uint32{h.blocks, h.changes, h.blocksSum, h.changesSum} {
		binary.LittleEndian.PutUint32(b[24+4*i:], n)
	}
	binary.LittleEndian.PutUint32(b[4:], m.sum(b))
}

func (m mark) sum(head []byte) uint32 {
	return checksum(head[8:entryHeadSize]) ^ binary.LittleEndian.Uint32(m[4:])
}

// decodeEntryHead reads what encode wrote, at a place of the log.
func decodeEntryHead(b []byte, at position, m mark) (h entryHead, ok bool) {
	if len(b) < entryHeadSize || [4]byte(b) != [4]byte(m[:]) || binary.LittleEndian.Uint32(b[4:]) != m.sum(b) {
		return h, false
	}
	h.at = position(binary.LittleEndian.Uint64(b[8:]))
	h.synced = position(binary.LittleEndian.Uint64(b[16:]))
	for i, n := range []*uint32{&h.blocks, &h.changes, &h.blocksSum, &h.changesSum} {
		*n = binary.LittleEndian.Uint32(b[24+4*i:])
	}
	return h, h.at == at && h.synced <= at
}

// size is how many bytes the entry has.
func (h entryHead) size() int64 { return entryHeadSize + int64(h.blocks) + int64(h.changes) }

// segmentHead is what a segment begins with: where the one before it ends.
func segmentHead(number uint32, before position) (b [segmentHeadSize]byte) {
	copy(b[:], segmentMagic)
	binary.LittleEndian.PutUint64(b[8:], uint64(before))
	binary.LittleEndian.PutUint32(b[4:], checksum(b[8:])^number)
	return b
}

func decodeSegmentHead(b []byte, number uint32) (before position, ok bool) {
	if len(b) < segmentHeadSize || string(b[:4]) != segmentMagic {
		return 0, false
	}
	return position(binary.LittleEndian.Uint64(b[8:])), binary.LittleEndian.Uint32(b[4:]) == checksum(b[8:segmentHeadSize])^number
}
