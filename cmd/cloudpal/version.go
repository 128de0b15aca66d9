package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

const versionHelp = `Print the version of this program. The agent may be of another one, until it is
restarted: see "cloudpal host status".`

// release is set by the linker in a release.
var release string

func (c *cli) version() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "version", Short: "Print the version", Long: versionHelp,
		Example: "  cloudpal version\n  cloudpal version --json",
		Args:    args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": versionName(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return c.print(v, func(w io.Writer) { fmt.Fprintln(w, "cloudpal", v["version"], v["platform"]) })
		},
	})
}

// versionName is the release, or the commit that this was built from.
func versionName() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
