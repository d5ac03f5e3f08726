#include <stddef.h>
#include <stdint.h>

// hcu_j2k is a decoded image; data points into image.
typedef struct {
	uint32_t width, height, components, precision;
	int is_signed;
	int32_t *data[3];
	void *image;
} hcu_j2k;

// hcu_j2k_decode decodes a raw JPEG 2000 code stream of one or three components
// without subsampling. It returns 0, or 1 with the reason in msg.
int hcu_j2k_decode(const unsigned char *src, size_t n, hcu_j2k *out, char *msg, size_t msg_size);

// hcu_j2k_free frees what hcu_j2k_decode left in out.
void hcu_j2k_free(hcu_j2k *out);
