//go:build linux

package testenv

import (
	"context"
	"errors"
)

type machineSpec struct{}

type network struct{}

func newNetwork(context.Context, int) (*network, error) {
	return nil, errors.New("not built yet")
}

func (f *Fleet) prepareMachine(context.Context, *Host, HostConfig, []*keyPair) (control, error) {
	return nil, errors.New("not built yet")
}

func (s *supervisor) clone(request) (int, error) { return 0, errors.New("not built yet") }
func (s *supervisor) boot(request) error         { return errors.New("not built yet") }
func runMachine()                                {}
func linkOwners() []int                          { return nil }
func removeLinks(int)                            {}
func unmountBelow(string)                        {}
