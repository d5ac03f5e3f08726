package checkpoint

import "math"

var inf = math.Inf(1)
