package main

import (
	"fmt"
	"path"
	"strings"

	"github.com/tradle/cloudpal/compute/api"
)

// parseMount reads NAME:/path[:ro|:rw|:raw].
func parseMount(text string) (api.Mount, error) {
	parts := strings.Split(text, ":")
	m := api.Mount{Volume: parts[0]}
	if len(parts) > 1 {
		m.Path = parts[1]
	}
	mode := "rw"
	if len(parts) == 3 {
		mode = parts[2]
	}
	switch {
	case strings.ContainsRune(m.Volume, '/'):
		return m, fmt.Errorf("volume %.60q: a VM sees volumes, not directories of the host; name a volume, as in data:/var/lib/data", text)
	case m.Volume == "" || !path.IsAbs(m.Path) || len(parts) > 3 || mode != "ro" && mode != "rw" && mode != "raw":
		return m, fmt.Errorf("volume %.60q: write it as NAME:/path, NAME:/path:ro or NAME:/dev/node:raw", text)
	}
	m.ReadOnly, m.Raw = mode == "ro", mode == "raw"
	return m, nil
}
