package dav

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/webdav"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

const (
	maxProps    = 64       // properties that a file may have
	maxPropsLen = 64 << 10 // bytes of all of them, as metadata
)

// A property is one that a client made up, as a file's metadata has it under
// "props".
type property struct {
	Space string `json:"space,omitempty"`
	Name  string `json:"name"`
	Lang  string `json:"lang,omitempty"`
	XML   string `json:"xml,omitempty"`
}

// propsOf returns a file's properties. A drive may be a stranger's: what would
// break the XML of an answer is left out.
func propsOf(e hyperdrive.Entry) map[xml.Name]webdav.Property {
	var m struct {
		Props []property `json:"props"`
	}
	if len(e.Metadata) > 2*maxPropsLen || json.Unmarshal(e.Metadata, &m) != nil {
		return nil
	}
	props := map[xml.Name]webdav.Property{}
	for _, p := range m.Props[:min(len(m.Props), maxProps)] {
		name := xml.Name{Space: p.Space, Local: p.Name}
		if isName(p.Name) && isWellFormed(p.XML) {
			props[name] = webdav.Property{XMLName: name, Lang: p.Lang, InnerXML: []byte(p.XML)}
		}
	}
	return props
}

// isName tells whether an element may have such a name, without a prefix.
func isName(name string) bool {
	return name != "" && !strings.ContainsAny(name, ":<>&'\"/= \t\r\n") && isWellFormed("<"+name+"/>")
}

// isWellFormed tells whether text may stand within an element.
func isWellFormed(text string) bool {
	d := xml.NewDecoder(strings.NewReader("<a>" + text + "</a>"))
	depth := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			return depth == 0
		}
		if err != nil {
			return false
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			if depth--; depth == 0 && d.InputOffset() != int64(len(text)+len("<a></a>")) {
				return false // what is behind it is outside of the element
			}
		case xml.Directive, xml.ProcInst:
			return false
		}
	}
}

// withMember returns metadata with a member set, and all others as they were.
// What is no object is replaced by one.
func withMember(metadata json.RawMessage, name string, v any) (json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if len(metadata) > 0 && json.Unmarshal(metadata, &members) != nil {
		members = map[string]json.RawMessage{}
	}
	value, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	members[name] = value
	return json.Marshal(members)
}

// modified is a file's metadata after it was changed at a time.
func modified(metadata json.RawMessage, t time.Time) json.RawMessage {
	m, err := withMember(metadata, "mtime", t.UnixMilli())
	if err != nil {
		return nil // cannot be: a number and what was JSON already
	}
	return m
}

// DeadProps returns the properties that clients have given the file.
func (r *reader) DeadProps() (map[xml.Name]webdav.Property, error) { return propsOf(r.info.entry), nil }

// Patch changes them, all or none.
func (r *reader) Patch(patches []webdav.Proppatch) ([]webdav.Propstat, error) {
	e, err := r.info.drive.Entry(r.ctx, r.info.entry.Name)
	if err != nil {
		return nil, err
	}
	props := propsOf(e)
	if props == nil {
		props = map[xml.Name]webdav.Property{}
	}
	answer := webdav.Propstat{Status: http.StatusOK}
	for _, patch := range patches {
		for _, p := range patch.Props {
			answer.Props = append(answer.Props, webdav.Property{XMLName: p.XMLName})
			if patch.Remove {
				delete(props, p.XMLName)
			} else {
				props[p.XMLName] = p
			}
		}
	}
	if err := keepProps(&e, props); err != nil {
		answer.Status = webdav.StatusInsufficientStorage
		return []webdav.Propstat{answer}, nil
	}
	s := system{r.info.drive}
	err = s.change(r.ctx, "proppatch", e.Name, func(b *hyperdrive.Batch) error { return b.PutEntry(e.Name, e) })
	return []webdav.Propstat{answer}, err
}

// keepProps puts properties into an entry's metadata.
func keepProps(e *hyperdrive.Entry, props map[xml.Name]webdav.Property) error {
	list := make([]property, 0, len(props))
	for name, p := range props {
		if !isName(name.Local) || !isWellFormed(string(p.InnerXML)) {
			return cloudpal.Invalid
		}
		list = append(list, property{Space: name.Space, Name: name.Local, Lang: p.Lang, XML: string(p.InnerXML)})
	}
	m, err := withMember(e.Metadata, "props", list)
	if err == nil && (len(list) > maxProps || len(m) > maxPropsLen) {
		err = cloudpal.E("", cloudpal.NoSpace, errors.New("too many properties"))
	}
	e.Metadata = m
	return err
}
