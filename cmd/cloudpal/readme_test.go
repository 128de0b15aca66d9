package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// A newcomer types what the README says, with two homes for two machines. Only
// the port is any, so that tests run beside each other.
func TestReadmeMovesAFolder(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Move a folder")
	section, _, _ = strings.Cut(section, "\n## ")
	commands := regexp.MustCompile(`(?m)^    bin/(.+)$`).FindAllStringSubmatch(section, -1)
	if len(commands) != 2 {
		t.Fatalf("the README moves a folder with %d commands, want 2", len(commands))
	}
	serve, mirror := commands[0][1], commands[1][1]
	shown := strings.NewReplacer("KEY", "([a-z0-9]{52})", "HOST:7447", `\S+`).Replace(mirror)
	typed := strings.NewReplacer("KEY", "$KEY", "FOLDER", "Pictures", "HOST:7447", "$FROM").Replace(mirror)
	script := `[!exec:sh] skip
env CLOUDPAL_STORE=
env HOME=$WORK/ann
random ann/Pictures/sea.jpg 2M
exec sh -c 'exec ` + serve + ` --listen 127.0.0.1:0 > serve.out 2> serve.err' &serve&
await serve.out '  ` + shown + `$' KEY
await serve.out ' --from (\S+)$' FROM
env HOME=$WORK/bob
` + typed + `
stdout '^Pictures: 3 files, .*\(3 new, 0 changed, 0 removed\); every block verified$'
exec diff -r ann/Pictures Pictures
kill -INT serve
wait serve

-- ann/Pictures/notes.txt --
the sea
-- ann/Pictures/more/notes.txt --
the beach
`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "readme.txt"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir, Setup: setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "random": random},
	})
}
