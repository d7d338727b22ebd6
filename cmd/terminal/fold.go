package terminal

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// FoldNames writes host names the way inventories do, so that a thousand of
// them fit on a line: web01, web02, web03, db1 becomes "db1,web[01-03]". A
// name is folded on its last run of digits. Names are cleaned; each is listed
// once.
func FoldNames(names []string) string {
	type numbered struct {
		number int
		digits string
	}
	type shape struct {
		before, after string
		width         int // of the number when it has leading zeros, else 0
	}
	groups := map[shape][]numbered{}
	var out []string
	for _, name := range names {
		name = Clean(name)
		before, digits, after := lastDigits(name)
		// 18 digits always fit an int64.
		if digits == "" || len(digits) > 18 {
			out = append(out, name)
			continue
		}
		n, _ := strconv.Atoi(digits)
		s := shape{before: before, after: after}
		if digits[0] == '0' && len(digits) > 1 {
			s.width = len(digits)
		}
		groups[s] = append(groups[s], numbered{n, digits})
	}
	// web09 and web10: the second has no leading zero, but belongs to the first.
	for s, list := range groups {
		if s.width != 0 {
			continue
		}
		var rest []numbered
		for _, n := range list {
			wide := shape{s.before, s.after, len(n.digits)}
			if _, ok := groups[wide]; ok {
				groups[wide] = append(groups[wide], n)
			} else {
				rest = append(rest, n)
			}
		}
		groups[s] = rest
	}
	for s, list := range groups {
		if len(list) == 0 {
			continue
		}
		slices.SortFunc(list, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
		list = slices.Compact(list)
		var runs []string
		for i := 0; i < len(list); {
			j := i
			for j+1 < len(list) && list[j+1].number == list[j].number+1 {
				j++
			}
			if i == j {
				runs = append(runs, list[i].digits)
			} else {
				runs = append(runs, list[i].digits+"-"+list[j].digits)
			}
			i = j + 1
		}
		if len(list) == 1 {
			out = append(out, s.before+list[0].digits+s.after)
			continue
		}
		out = append(out, fmt.Sprintf("%s[%s]%s", s.before, strings.Join(runs, ","), s.after))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ",")
}

// lastDigits splits name around its last run of digits.
func lastDigits(name string) (before, digits, after string) {
	isDigit := func(r rune) bool { return '0' <= r && r <= '9' }
	end := strings.LastIndexFunc(name, isDigit) + 1
	if end == 0 {
		return name, "", ""
	}
	start := strings.LastIndexFunc(name[:end], func(r rune) bool { return !isDigit(r) }) + 1
	return name[:start], name[start:end], name[end:]
}
