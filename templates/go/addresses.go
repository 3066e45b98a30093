// Package addresses asks the kernel for the addresses of its interfaces.
package addresses

import "net"

// Loopback is the loopback interface's addresses.
func Loopback() ([]string, error) {
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	addresses, err := loopback.Addrs()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, address := range addresses {
		names = append(names, address.String())
	}
	return names, nil
}
