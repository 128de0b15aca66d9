package api

import "time"

type LogEntry struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Data   []byte    `json:"data"`
}
