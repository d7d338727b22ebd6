// Package jump is the recording jump host: it lets people in by user
// certificate, finds out which host they want, decides by rule, logs in to the
// host with the certificate in the person's forwarded agent, and records what
// passes.
//
// Of a client connection it makes an outer (the connection itself), which for a
// destination asked for within it carries an inner connection that ends here as
// well, and a link: a client connection that is bound to one host and one login,
// with one connection to that host. Sessions and forwardings belong to links.
//
// It refuses everything that no role permits, every channel and request type
// that it doesn't know, identities that no signature has proved, and to pass on a
// byte that the recorder hasn't taken. It offers nothing of the machine that it
// runs on: no shell, no files, no agent, no way to an address that a client
// names.
package jump
