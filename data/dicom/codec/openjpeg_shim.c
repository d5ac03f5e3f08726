//go:build dicomcodec

#include "openjpeg_shim.h"

#include <openjpeg.h>
#include <stdio.h>
#include <string.h>

typedef struct {
	const unsigned char *src;
	size_t n, pos;
} memory;

static OPJ_SIZE_T mem_read(void *buf, OPJ_SIZE_T n, void *user) {
	memory *m = user;
	if (m->pos >= m->n) return (OPJ_SIZE_T)-1;
	if (n > m->n - m->pos) n = m->n - m->pos;
	memcpy(buf, m->src + m->pos, n);
	m->pos += n;
	return n;
}

static OPJ_OFF_T mem_skip(OPJ_OFF_T n, void *user) {
	memory *m = user;
	if (n < 0 || (size_t)n > m->n - m->pos) return -1;
	m->pos += (size_t)n;
	return n;
}

static OPJ_BOOL mem_seek(OPJ_OFF_T at, void *user) {
	memory *m = user;
	if (at < 0 || (size_t)at > m->n) return OPJ_FALSE;
	m->pos = (size_t)at;
	return OPJ_TRUE;
}

// A log keeps the first message of the library.
typedef struct {
	char *msg;
	size_t size;
} log;

static void keep(const char *text, void *user) {
	log *l = user;
	if (l->msg[0] == 0) snprintf(l->msg, l->size, "%.*s", (int)strcspn(text, "\n"), text);
}

static void drop(const char *text, void *user) {
	(void)text;
	(void)user;
}

static int decode(opj_codec_t *codec, opj_stream_t *stream, opj_image_t **image) {
	opj_dparameters_t params;
	opj_set_default_decoder_parameters(&params);
	return opj_setup_decoder(codec, &params) && opj_decoder_set_strict_mode(codec, OPJ_TRUE) &&
	       opj_read_header(stream, codec, image) && opj_decode(codec, stream, *image) &&
	       opj_end_decompress(codec, stream);
}

// fill copies what Go needs to know; it returns a complaint or NULL.
static const char *fill(const opj_image_t *image, hcu_j2k *out) {
	if (image->numcomps != 1 && image->numcomps != 3) return "not one or three components";
	const opj_image_comp_t *c = &image->comps[0];
	out->width = c->w;
	out->height = c->h;
	out->components = image->numcomps;
	out->precision = c->prec;
	out->is_signed = c->sgnd != 0;
	for (OPJ_UINT32 i = 0; i < image->numcomps; i++) {
		const opj_image_comp_t *o = &image->comps[i];
		if (o->data == NULL) return "a component was not decoded";
		if (o->w != c->w || o->h != c->h || o->prec != c->prec || o->sgnd != c->sgnd)
			return "components of different size or depth";
		out->data[i] = o->data;
	}
	return NULL;
}

int hcu_j2k_decode(const unsigned char *src, size_t n, hcu_j2k *out, char *msg, size_t msg_size) {
	memory m = {src, n, 0};
	log l = {msg, msg_size};
	opj_image_t *image = NULL;
	const char *why = NULL;
	msg[0] = 0;
	opj_codec_t *codec = opj_create_decompress(OPJ_CODEC_J2K);
	opj_stream_t *stream = opj_stream_create(64 << 10, OPJ_TRUE);
	if (codec == NULL || stream == NULL) {
		why = "out of memory";
	} else {
		opj_set_error_handler(codec, keep, &l);
		opj_set_warning_handler(codec, drop, NULL);
		opj_set_info_handler(codec, drop, NULL);
		opj_stream_set_user_data(stream, &m, NULL);
		opj_stream_set_user_data_length(stream, n);
		opj_stream_set_read_function(stream, mem_read);
		opj_stream_set_skip_function(stream, mem_skip);
		opj_stream_set_seek_function(stream, mem_seek);
		if (!decode(codec, stream, &image)) why = "the code stream does not decode";
	}
	if (why == NULL) why = fill(image, out);
	out->image = image;
	if (stream != NULL) opj_stream_destroy(stream);
	if (codec != NULL) opj_destroy_codec(codec);
	if (why != NULL && msg[0] == 0) snprintf(msg, msg_size, "%s", why);
	return why != NULL;
}

void hcu_j2k_free(hcu_j2k *out) {
	if (out->image != NULL) opj_image_destroy(out->image);
	out->image = NULL;
}
