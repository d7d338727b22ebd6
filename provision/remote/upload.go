package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"
)

const (
	uploadPrefix = "fleetca-upload-"
	// uploadsAtOnce bounds the files that are written side by side.
	uploadsAtOnce = 16
	// removalsAtMost bounds what RemoveUpload believes a folder to hold.
	removalsAtMost = 1000
)

// File is a file to upload.
type File struct {
	Name    string // without a folder
	Content []byte
	Mode    fs.FileMode // permission bits only
}

// withSFTP opens an SFTP session for the length of f. It isn't kept, since a
// server may allow no second session beside it.
func (c *Conn) withSFTP(ctx context.Context, f func(*sftp.Client) error) error {
	client, ch, err := c.openSFTP(ctx)
	if err != nil {
		return err
	}
	release := c.guard(ctx, ch)
	err = f(client)
	release()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	end := func() {
		_ = client.Close()
		c.abandon(ch)
		_ = client.Wait()
	}
	if c.start(end) != nil {
		end() // the connection is closed
	}
	return err
}

func (c *Conn) openSFTP(ctx context.Context) (*sftp.Client, *channel, error) {
	ch, err := c.open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a session: %w", err)
	}
	client, err := c.startSFTP(ctx, ch)
	if err != nil {
		return nil, nil, err
	}
	return client, ch, nil
}

func (c *Conn) startSFTP(ctx context.Context, ch *channel) (*sftp.Client, error) {
	if err := c.start(func() { waitForEnd(ch) }); err != nil {
		return nil, err
	}
	if err := c.start(func() { _, _ = io.Copy(io.Discard, ch.Stderr()) }); err != nil {
		return nil, err
	}
	answer, err := c.request(ch, "subsystem", "sftp")
	if err != nil {
		return nil, err
	}
	// A refused request leaves the channel open, and nobody would ever greet.
	var refused atomic.Bool
	err = c.start(func() {
		select {
		case <-answer.refused:
			refused.Store(true)
			c.abandon(ch)
		case <-ch.ended:
		}
	})
	if err != nil {
		return nil, err
	}
	defer c.guard(ctx, ch)()
	if !c.mayFollow(answer, ch.ended) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, ErrNoSFTP
	}
	client, err := sftp.NewClientPipe(ch, ch, sftp.UseConcurrentWrites(true))
	if err != nil {
		c.abandon(ch)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case refused.Load():
			return nil, ErrNoSFTP
		}
		// Dropbear and others grant it, and then have no program to run.
		return nil, fmt.Errorf("%w: %w", ErrNoSFTP, err)
	}
	return client, nil
}

// guard closes the channel when ctx ends, since SFTP requests don't heed it.
// The function returned ends the guard and waits for it.
func (c *Conn) guard(ctx context.Context, ch *channel) func() {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		c.abandon(ch)
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// Upload writes files into a new private folder on the host, in the login's
// home or else in /tmp, and returns the folder's absolute path. The folder is
// returned with an error, too, if it was made. Errors wrap ErrNoSFTP where the
// server offers no SFTP.
func (c *Conn) Upload(ctx context.Context, files []File) (dir string, err error) {
	for _, f := range files {
		if f.Name == "" || f.Name != path.Base(f.Name) || f.Name == "." || f.Name == ".." || strings.ContainsAny(f.Name, "/\n\x00") {
			return "", fmt.Errorf("uploading to %s: %q is not a file name", c.host, f.Name)
		}
	}
	err = c.withSFTP(ctx, func(client *sftp.Client) (err error) {
		dir, err = upload(client, files)
		return err
	})
	if dir != "" {
		c.remember(dir, files)
	}
	if err != nil {
		return dir, fmt.Errorf("uploading to %s: %w", c.host, err)
	}
	return dir, nil
}

// remember keeps the names of what was uploaded, which saves RemoveUpload from
// asking for them.
func (c *Conn) remember(dir string, files []File) {
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uploads[dir] = names
}

func (c *Conn) forget(dir string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.uploads[dir]
	delete(c.uploads, dir)
	return names
}

func upload(client *sftp.Client, files []File) (string, error) {
	dir, err := makeFolder(client)
	if err != nil {
		return "", err
	}
	// mkdir over SFTP takes no mode. Until here the folder has the login's umask
	// and nothing in it.
	if err := client.Chmod(dir, 0o700); err != nil {
		return dir, fmt.Errorf("making %q private: %w", dir, err)
	}
	var g errgroup.Group
	g.SetLimit(uploadsAtOnce)
	for _, f := range files {
		g.Go(func() error {
			if err := writeFile(client, path.Join(dir, f.Name), f); err != nil {
				return fmt.Errorf("writing %q: %w", f.Name, err)
			}
			return nil
		})
	}
	return dir, g.Wait()
}

// makeFolder makes a folder that wasn't there. The home's path is asked for at
// the same time, to save a round trip.
func makeFolder(client *sftp.Client) (string, error) {
	name := "." + uploadPrefix + rand.Text()
	var home string
	var g errgroup.Group
	g.Go(func() (err error) {
		home, err = client.RealPath(".")
		return err
	})
	made := client.Mkdir(name)
	asked := g.Wait()
	if made == nil {
		if asked != nil || !path.IsAbs(home) || strings.ContainsAny(home, "\n\x00") {
			_ = client.RemoveDirectory(name)
			return "", fmt.Errorf("asking for the home's path: got %.200q, %w", home, asked)
		}
		return path.Join(home, name), nil
	}
	dir := "/tmp/" + uploadPrefix + rand.Text()
	if err := client.Mkdir(dir); err != nil {
		return "", fmt.Errorf("making a folder in the home: %w; in /tmp: %w", made, err)
	}
	return dir, nil
}

func writeFile(client *sftp.Client, name string, f File) error {
	// EXCL: whatever is there already isn't ours.
	w, err := client.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	// By name, since a File does one thing at a time; the folder is ours alone.
	var g errgroup.Group
	g.Go(func() error { return client.Chmod(name, f.Mode.Perm()) })
	_, err = w.Write(f.Content)
	return errors.Join(err, g.Wait(), w.Close())
}

// RemoveUpload removes a folder that Upload made. One that is gone is fine.
func (c *Conn) RemoveUpload(ctx context.Context, dir string) error {
	name := strings.TrimPrefix(path.Base(dir), ".")
	if !path.IsAbs(dir) || path.Clean(dir) != dir || !strings.HasPrefix(name, uploadPrefix) {
		return fmt.Errorf("removing an upload from %s: %q is none", c.host, dir)
	}
	err := c.withSFTP(ctx, func(client *sftp.Client) error {
		if names := c.forget(dir); names != nil && removeFiles(client, dir, names) == nil {
			return nil
		}
		return removeFolder(client, dir)
	})
	if err != nil {
		return fmt.Errorf("removing an upload from %s: %w", c.host, err)
	}
	return nil
}

func removeFolder(client *sftp.Client, dir string) error {
	entries, err := client.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > removalsAtMost {
		return fmt.Errorf("%q holds %d files", dir, len(entries))
	}
	var names []string
	for _, e := range entries {
		// The name is the host's word: it must not lead elsewhere.
		if name := e.Name(); name == path.Base(name) && name != ".." && name != "." {
			names = append(names, name)
		}
	}
	return removeFiles(client, dir, names)
}

func removeFiles(client *sftp.Client, dir string, names []string) error {
	var g errgroup.Group
	g.SetLimit(uploadsAtOnce)
	for _, name := range names {
		g.Go(func() error { return client.Remove(path.Join(dir, name)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return client.RemoveDirectory(dir)
}
