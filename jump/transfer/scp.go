package transfer

// SCP is what an scp command line asks the host to do.
type SCP struct {
	// Source is true for -f, where the host sends files, and false for -t.
	Source bool
	// Recursive, Preserve and Directory are the options -r, -p and -d.
	Recursive, Preserve, Directory bool
	// Path is the argument with quotes taken off.
	Path string
	// Glob is true if the host's shell expands wildcards in Path.
	Glob bool
}

// ParseSCP reads the command line of an exec request.
func ParseSCP(command string) (SCP, bool) { return SCP{}, false }

// SCPParser follows the old scp protocol. Its methods are safe for concurrent
// use by one goroutine per direction.
type SCPParser struct{}

// NewSCPParser returns a parser of the stream that the command s starts.
func NewSCPParser(s SCP, emit func(Operation)) *SCPParser { return &SCPParser{} }

// FromClient takes bytes that are about to be passed on to the host.
func (p *SCPParser) FromClient(data []byte) error { return nil }

// FromHost takes bytes that are about to be passed on to the client.
func (p *SCPParser) FromHost(data []byte) error { return nil }

// Close emits what was begun and not ended.
func (p *SCPParser) Close() {}
