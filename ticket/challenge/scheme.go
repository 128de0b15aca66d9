package challenge

import (
	"strings"
)

// A scheme is one of the challenges of RFC 9110, section 11.3, or credentials.
type scheme struct {
	name   string
	params map[string]string // by their names in lower case; none where it has a token68
}

// A scanner reads a header field.
type scanner struct{ rest string }

// parseSchemes reads a list of challenges. Commas stand between challenges and between
// the parameters of one: what a comma is, only what comes behind it tells.
func parseSchemes(value string) (list []scheme, err error) {
	if len(value) > maxHeader {
		return nil, invalid("the header field is too large")
	}
	s := scanner{value}
	for s.skipCommas(); s.rest != ""; s.skipCommas() {
		if name, text, ok := s.param(); ok {
			if len(list) == 0 || list[len(list)-1].params == nil {
				return nil, invalid("a parameter belongs to nothing")
			}
			params := list[len(list)-1].params
			if _, twice := params[name]; twice {
				return nil, invalid("a parameter is there twice")
			}
			params[name] = text
		} else if name := s.token(); name != "" {
			if !s.space() && s.rest != "" && s.rest[0] != ',' {
				return nil, invalid("it is no list of challenges")
			}
			next := scheme{name: name, params: map[string]string{}}
			if s.token68() {
				next.params = nil
			}
			list = append(list, next)
			continue // its first parameter needs no comma before it
		} else {
			return nil, invalid("it is no list of challenges")
		}
		s.space()
		if s.rest != "" && s.rest[0] != ',' {
			return nil, invalid("it is no list of challenges")
		}
	}
	return list, nil
}

func (s *scanner) skipCommas() {
	s.rest = strings.TrimLeft(s.rest, " \t,")
}

// space reports whether there was one.
func (s *scanner) space() bool {
	n := len(s.rest)
	s.rest = strings.TrimLeft(s.rest, " \t")
	return len(s.rest) < n
}

// token reads one, or nothing.
func (s *scanner) token() string {
	n := 0
	for n < len(s.rest) && isTokenChar(s.rest[n]) {
		n++
	}
	token := s.rest[:n]
	s.rest = s.rest[n:]
	return token
}

// param reads name=value, or nothing.
func (s *scanner) param() (name, value string, ok bool) {
	was := s.rest
	name = s.token()
	s.space()
	if name == "" || !strings.HasPrefix(s.rest, "=") {
		s.rest = was
		return "", "", false
	}
	s.rest = s.rest[1:]
	s.space()
	if strings.HasPrefix(s.rest, `"`) {
		value, ok = s.quoted()
	} else {
		value = s.value()
		ok = value != ""
	}
	if !ok {
		s.rest = was
	}
	return strings.ToLower(name), value, ok
}

// value reads one without quotes. RFC 9577 writes base64url with its padding, which a
// token has not: it is read all the same.
func (s *scanner) value() string {
	token := s.token()
	if token == "" {
		return ""
	}
	n := len(s.rest) - len(strings.TrimLeft(s.rest, "="))
	value := token + s.rest[:n]
	s.rest = s.rest[n:]
	return value
}

// quoted reads a quoted-string.
func (s *scanner) quoted() (string, bool) {
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// token68 skips one, which other schemes use, if it is what comes up to the next
// comma.
func (s *scanner) token68() bool {
	n := 0
	for n < len(s.rest) && (isTokenChar(s.rest[n]) || s.rest[n] == '/') {
		n++
	}
	if n == 0 {
		return false
	}
	for n < len(s.rest) && s.rest[n] == '=' {
		n++
	}
	after := strings.TrimLeft(s.rest[n:], " \t")
	if after != "" && after[0] != ',' {
		return false
	}
	s.rest = after
	return true
}

// isTokenChar is tchar of RFC 9110, section 5.6.2.
func isTokenChar(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
