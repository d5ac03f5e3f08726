//go:build !dicomcodec

package codec

// Enabled reports whether the program was built with the tag dicomcodec.
const Enabled = false
