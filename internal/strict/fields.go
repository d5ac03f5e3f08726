package strict

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Decode is Unmarshal for structs within structs. For an unknown field it returns an
// error with the path of the field, such as "training.clpi", and the nearest known
// name. Types with UnmarshalJSON check their own fields.
func Decode(what string, data []byte, v any) error {
	if !json.Valid(data) {
		return Unmarshal(what, data, v) // its error has the position
	}
	if err := checkFields(what, "", data, reflect.TypeOf(v).Elem()); err != nil {
		return err
	}
	return Unmarshal(what, data, v)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// checkFields returns an error if a JSON value has a field that its type does
// not have.
func checkFields(what, path string, data []byte, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		return nil
	}
	data = bytes.TrimSpace(data)
	switch {
	case t.Kind() == reflect.Struct && data[0] == '{':
		var values map[string]json.RawMessage
		if err := json.Unmarshal(data, &values); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		known := fieldTypes(t)
		for _, name := range keys(data) {
			of, ok := known[name]
			if !ok {
				return fmt.Errorf("%s: unknown field %q%s", what, path+name, suggestion(name, fields(t)))
			}
			if err := checkFields(what, path+name+".", values[name], of); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Slice && data[0] == '[':
		var values []json.RawMessage
		if err := json.Unmarshal(data, &values); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		for i, v := range values {
			if err := checkFields(what, fmt.Sprintf("%s[%d].", strings.TrimSuffix(path, "."), i), v, t.Elem()); err != nil {
				return err
			}
		}
	}
	return nil
}

// keys returns the names in a valid JSON object, in order.
func keys(object []byte) (names []string) {
	d := json.NewDecoder(bytes.NewReader(object))
	d.Token()
	for d.More() {
		name, _ := d.Token()
		names = append(names, name.(string))
		var skipped json.RawMessage
		d.Decode(&skipped)
	}
	return names
}

// fieldTypes returns the types of a struct's fields by their JSON names.
func fieldTypes(t reflect.Type) map[string]reflect.Type {
	types := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for name, of := range fieldTypes(f.Type) {
				types[name] = of
			}
		case name != "" && name != "-":
			types[name] = f.Type
		}
	}
	return types
}

// suggestion returns text with the nearest known name, or with all names if none
// is near.
func suggestion(name string, known []string) string {
	nearest, least := "", len(name)/2+1
	for _, k := range known {
		if d := distance(strings.ToLower(name), k); d < least {
			nearest, least = k, d
		}
	}
	if nearest == "" {
		return "; wanted " + strings.Join(known, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", nearest)
}

// distance returns the number of letters that must be changed, inserted or deleted
// to turn a into b (Levenshtein 1965).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := left
			if a[i] != b[j] {
				cost++
			}
			left = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
