package console

import (
	"errors"
	"fmt"
	"strings"
)

// Split cuts a command line into words as a shell does: white space parts
// words, quotes and backslashes keep it. Nothing is expanded, and no character
// is an operator: "*", "$HOME" and ";" stand for themselves. An open quote, a
// backslash at the end and a zero byte are refused.
func Split(command string) ([]string, error) {
	if strings.ContainsRune(command, 0) {
		return nil, fmt.Errorf("reading command %q: it contains a zero byte", command)
	}
	var (
		words []string
		word  strings.Builder
		begun bool // also by quotes with nothing between them
		quote byte // the one that is open, or 0
	)
	for i := 0; i < len(command); i++ {
		c := command[i]
		switch {
		case quote == '\'' && c != '\'':
			word.WriteByte(c)
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\':
			if i++; i == len(command) {
				return nil, fmt.Errorf("reading command %q: %w", command, errors.New("it ends in a backslash"))
			}
			// Within double quotes a backslash keeps only what would mean something.
			if quote == '"' && !strings.ContainsRune("\"\\$`\n", rune(command[i])) {
				word.WriteByte('\\')
			}
			if command[i] != '\n' {
				begun = true
				word.WriteByte(command[i])
			}
		case quote == 0 && (c == '\'' || c == '"'):
			quote, begun = c, true
		case quote == 0 && strings.IndexByte(" \t\r\n", c) >= 0:
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("reading command %q: a quote (%c) is not closed", command, quote)
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// Join quotes words so that Split, and any shell, reads them back.
func Join(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, needsQuotes) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func needsQuotes(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=./:,@%+", r))
}
