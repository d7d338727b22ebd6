// Package transfer understands file copies from the bytes that pass: the old
// scp protocol and SFTP version 3. It tells which files were read, written,
// renamed or removed, how much of them passed, with which digest and with which
// result; contents are never kept.
//
// It refuses to guess. A command line is an scp only if a shell runs it as one
// scp and nothing else; a stream that isn't the protocol is an error, so that
// the caller records it as a command instead; a digest is given only for a file
// that passed whole. Memory is bounded whatever both sides send: what would
// take more is an error, too.
package transfer
