package center

import (
	"strings"

	"github.com/tradle/cloudpal/center/api"
	host "github.com/tradle/cloudpal/compute/api"
)

// A Census is what a center's operator sees of its pals: how many there are,
// and nothing of whose.
type Census struct {
	Pals     int   `json:"pals"`
	Awake    int   `json:"awake"`
	Napping  int   `json:"napping"`
	Sealed   int   `json:"sealed"`
	Starting int   `json:"starting"`
	Stopped  int   `json:"stopped"`
	Memory   int64 `json:"memory"` // bytes that those awake may take
}

// Count counts the pals among a host's VMs.
func Count(vms []host.VM) (n Census) {
	for _, v := range vms {
		id, ok := strings.CutPrefix(v.Name, vmPrefix)
		if _, err := api.ParseID(id); !ok || err != nil {
			continue
		}
		n.Pals++
		switch v.State {
		case host.Running:
			n.Awake++
			n.Memory += v.Memory
		case host.Asleep:
			n.Napping++
		case host.Cold:
			n.Sealed++
		case host.Starting:
			n.Starting++
		case host.Stopped:
			n.Stopped++
		}
	}
	return n
}
