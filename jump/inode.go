package jump

import (
	"io/fs"
	"syscall"
)

// inode tells two files of the same name, size and time apart.
func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
