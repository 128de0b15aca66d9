package api

import (
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// Outputs returns outputs as they are sent.
func Outputs(outputs []ticket.Output) []Output {
	sent := make([]Output, 0, len(outputs))
	for _, o := range outputs {
		sent = append(sent, Output{Key: o.Key[:], Blinded: o.Blinded[:]})
	}
	return sent
}

// ParseOutputs reads at least one output and at most MaxOutputs.
func ParseOutputs(sent []Output) ([]ticket.Output, error) {
	const op = "read outputs"
	if len(sent) == 0 || len(sent) > MaxOutputs {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("%d; it takes 1 to %d", len(sent), MaxOutputs))
	}
	outputs := make([]ticket.Output, 0, len(sent))
	for _, o := range sent {
		if len(o.Key) != len(ticket.KeyID{}) || len(o.Blinded) != ticket.BlindSize {
			return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("one has another size"))
		}
		outputs = append(outputs, ticket.Output{Key: ticket.KeyID(o.Key), Blinded: [ticket.BlindSize]byte(o.Blinded)})
	}
	return outputs, nil
}
