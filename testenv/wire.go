//go:build linux

package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// What the process that owns a fleet and the fleet's supervisor say to each
// other: JSON, requests one way, replies with the same ID the other way, in any
// order.

type operation string

const (
	opHello  operation = "hello"  // make the fleet's folder
	opSpawn  operation = "spawn"  // start a server
	opWait   operation = "wait"   // reply when the server has ended
	opSignal operation = "signal" // signal the server
	opKill   operation = "kill"   // kill the server and all that it started
	opClone  operation = "clone"  // start a machine, which waits in its namespaces
	opBoot   operation = "boot"   // let the machine set itself up and start its server
)

type request struct {
	ID     uint64       `json:"id"`
	Op     operation    `json:"op"`
	Host   string       `json:"host,omitempty"`
	Parent string       `json:"parent,omitempty"`
	Argv   []string     `json:"argv,omitempty"`
	Log    string       `json:"log,omitempty"`
	Port   int          `json:"port,omitempty"`
	Signal int          `json:"signal,omitempty"`
	Disk   int          `json:"disk,omitempty"`
	Spec   *machineSpec `json:"spec,omitempty"`
}

type reply struct {
	ID     uint64 `json:"id"`
	Error  string `json:"error,omitempty"`
	Folder string `json:"folder,omitempty"`
	PID    int    `json:"pid,omitempty"`
	Status string `json:"status,omitempty"`
}

var errSupervisorGone = errors.New("the fleet's supervisor is gone")

// client is the owner's end.
type client struct {
	conn net.Conn
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan reply
	gone    bool
}

func newClient(conn net.Conn) *client {
	c := &client{conn: conn, done: make(chan struct{}), pending: map[uint64]chan reply{}}
	go c.read()
	return c
}

func (c *client) read() {
	defer close(c.done)
	d := json.NewDecoder(c.conn)
	for {
		var r reply
		if err := d.Decode(&r); err != nil {
			break
		}
		c.mu.Lock()
		ch := c.pending[r.ID]
		delete(c.pending, r.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- r
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for _, ch := range c.pending {
		close(ch)
	}
	c.pending = nil
}

// close ends the conversation and waits for the reader.
func (c *client) close() {
	_ = c.conn.Close()
	<-c.done
}

// send returns a channel that gets the one reply, or is closed if the
// supervisor is gone.
func (c *client) send(r request) <-chan reply {
	ch := make(chan reply, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		close(ch)
		return ch
	}
	c.next++
	r.ID = c.next
	c.pending[r.ID] = ch
	text, err := json.Marshal(r)
	if err == nil {
		_, err = c.conn.Write(append(text, '\n'))
	}
	if err != nil {
		delete(c.pending, r.ID)
		ch <- reply{Error: err.Error()}
	}
	return ch
}

func (c *client) call(ctx context.Context, r request) (reply, error) {
	select {
	case answer, ok := <-c.send(r):
		if !ok {
			return reply{}, fmt.Errorf("asking for %s: %w", r.Op, errSupervisorGone)
		}
		if answer.Error != "" {
			return answer, fmt.Errorf("asking for %s: %s", r.Op, answer.Error)
		}
		return answer, nil
	case <-ctx.Done():
		return reply{}, context.Cause(ctx)
	}
}

// serve answers requests with handle, each on a goroutine of its own, until
// the other end closes.
func serve(conn io.ReadWriter, handle func(request) reply) {
	var mu sync.Mutex
	d := json.NewDecoder(conn)
	e := json.NewEncoder(conn)
	for {
		var r request
		if err := d.Decode(&r); err != nil {
			return
		}
		go func() {
			answer := handle(r)
			answer.ID = r.ID
			mu.Lock()
			defer mu.Unlock()
			_ = e.Encode(answer)
		}()
	}
}
