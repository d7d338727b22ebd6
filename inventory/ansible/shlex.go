package ansible

import (
	"errors"
	"strings"
)

// splitLine splits as Python's shlex.split(line, comments=True) does: POSIX
// quoting, and a "#" starts a comment also in the middle of a word.
func splitLine(line string) ([]string, error) {
	l := lexer{input: []rune(line)}
	var words []string
	for {
		word, ok, err := l.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			return words, nil
		}
		words = append(words, word)
	}
}

type lexer struct {
	input []rune
	at    int
}

func (l *lexer) next() (word string, ok bool, err error) {
	const between, inWord, escape = ' ', 'a', '\\'
	var token strings.Builder
	quoted := false
	state, escapedFrom := between, inWord
	for l.at < len(l.input) {
		c := l.input[l.at]
		l.at++
		space := c == ' ' || c == '\t' || c == '\r' || c == '\n'
		switch state {
		case between, inWord:
			switch {
			case space || c == '#':
				if c == '#' {
					l.skipComment()
				}
				if token.Len() > 0 || quoted {
					return token.String(), true, nil
				}
				state = between
			case c == '\'' || c == '"':
				state = c
			case c == '\\':
				escapedFrom, state = inWord, escape
			default:
				token.WriteRune(c)
				state = inWord
			}
		case '\'', '"':
			quoted = true
			switch {
			case c == state:
				state = inWord
			case c == '\\' && state == '"':
				escapedFrom, state = state, escape
			default:
				token.WriteRune(c)
			}
		case escape:
			if escapedFrom == '"' && c != '\\' && c != '"' {
				token.WriteByte('\\')
			}
			token.WriteRune(c)
			state = escapedFrom
		}
	}
	switch state {
	case '\'', '"':
		return "", false, errors.New("a quote is not closed")
	case escape:
		return "", false, errors.New("nothing follows the backslash")
	}
	return token.String(), token.Len() > 0 || quoted, nil
}

func (l *lexer) skipComment() {
	for l.at < len(l.input) && l.input[l.at] != '\n' {
		l.at++
	}
}
