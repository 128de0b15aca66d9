package guest

import "time"

// ExecProtocol is what the exec request upgrades its connection to: frames.
const ExecProtocol = "cloudpal-exec"

// An ExecRequest starts one more process in a guest.
type ExecRequest struct {
	Args  []string `json:"args"`
	Env   []string `json:"env,omitempty"`  // over that of the guest's process
	Dir   string   `json:"dir,omitempty"`  // "": that of the guest's process
	User  string   `json:"user,omitempty"` // likewise
	TTY   bool     `json:"tty,omitempty"`  // stdout and stderr are then one
	Stdin bool     `json:"stdin,omitempty"`
	Rows  uint16   `json:"rows,omitempty"`
	Cols  uint16   `json:"cols,omitempty"`
}

// A Size is a terminal's, in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// A LogEntry is a piece of what the guest's process wrote.
type LogEntry struct {
	// Offset counts the bytes of both streams before this piece, since the
	// process began. A gap means that the pieces between are lost.
	Offset int64     `json:"offset"`
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"` // Stdout or Stderr
	Data   []byte    `json:"data"`   // at most MaxLogData bytes
}

// The streams.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// MaxLogData bounds a LogEntry's Data in bytes.
const MaxLogData = 16 << 10
