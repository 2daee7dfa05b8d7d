//go:build !linux

package rootfs

import "context"

func viewHost(bool) (*hostView, error) { return nil, errLinuxOnly }

func findSecrets(context.Context, *hostView, bool, bool) ([]string, error) { return nil, errLinuxOnly }
