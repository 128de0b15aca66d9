package guest

import (
	"bytes"
	"fmt"
	"io"
)

// The mailbox is a page of the guest's memory that its kernel leaves alone and
// whose place the host knows. Before a suspended guest runs again the host puts
// a Hello there, and vminit, which was suspended while it watched the page,
// takes it before anything else happens in the guest. A datagram would tell it
// the same, but its way through the guest's kernel is long, and all of it is
// cold: under software emulation it takes 40 ms (measured), which the packet
// that wakes the guest would wait for.
//
// It needs nothing but guest memory in a file, and where nobody watches it
// nobody answers: then the datagram does.
const (
	MailboxAddr = 2 << 20 // physical, below the kernel's image
	MailboxSize = 4096
	// MailboxCmdline is what tells the kernel to leave it alone (Linux,
	// Documentation/admin-guide/kernel-parameters.txt, "memmap=nn[KMG]$ss").
	MailboxCmdline = "memmap=4K$0x200000"

	answerAt = 2048
)

// Leave puts a hello into the mailbox of a guest that does not run, whose
// memory mem is.
func (h *Hello) Leave(mem io.WriterAt) error {
	page := make([]byte, MailboxSize)
	copy(page, h.Marshal())
	if _, err := mem.WriteAt(page, MailboxAddr); err != nil {
		return fmt.Errorf("leave the time in the guest's memory: %w", err)
	}
	return nil
}

// IsTaken reports whether the guest has answered in its mailbox that it took h.
func (h *Hello) IsTaken(mem io.ReaderAt) bool {
	b := make([]byte, AnswerSize)
	_, err := mem.ReadAt(b, MailboxAddr+answerAt)
	return err == nil && h.IsAnswer(b)
}

// IsFound reports whether the guest has found what was left in its mailbox.
// Its answer comes when it has taken it, which after a long nap takes longer.
func IsFound(mem io.ReaderAt) bool {
	b := make([]byte, len(helloMagic))
	_, err := mem.ReadAt(b, MailboxAddr)
	return err == nil && !bytes.Equal(b, helloMagic)
}

// Letter reads a mailbox, as the guest sees it.
func Letter(page []byte) (Hello, error) { return ParseHello(page[:HelloSize]) }

// Wipe removes a hello from the mailbox once it is found: its seed is nobody's
// business any more.
func Wipe(page []byte) { clear(page[:HelloSize]) }

// Confirm answers a hello in the mailbox.
func (h *Hello) Confirm(page []byte) { copy(page[answerAt:], h.Answer()) }
