// Package strict reads JSON configurations: an unknown field is an error that
// names the known ones.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Unmarshal decodes one JSON value into v, a pointer to a struct. A field that is
// not in data keeps its value, so v should hold the defaults before. Errors begin
// with what, such as "loss: dice".
func Unmarshal(what string, data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		// encoding/json has no error type for unknown fields.
		if _, name, ok := strings.Cut(err.Error(), "json: unknown field "); ok {
			return fmt.Errorf("%s: unknown field %s, wanted %s", what, name, strings.Join(fields(reflect.TypeOf(v).Elem()), ", "))
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: there is more text after the JSON value", what)
	}
	return nil
}

// fields returns the JSON names of a struct's fields, in order.
func fields(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, fields(f.Type)...)
		case name != "" && name != "-":
			names = append(names, name)
		}
	}
	return names
}
