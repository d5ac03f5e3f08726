// The C interface of package shim, beside the one that gotorch declares.
// Functions that return char* return NULL, or an error text for hcunet_free.
// A void* tensor is the at::Tensor* behind gotorch.Tensor.T.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void hcunet_free(void*);
const char* hcunet_torch_version(void);
int64_t hcunet_live_handles(void);
char* hcunet_pending(void);

// Scopes nest per thread; keep and end concern the innermost.
void hcunet_scope_begin(void);
void hcunet_scope_keep(void* tensor);
int64_t hcunet_scope_end(void);

// Operators of libtorch's dispatcher, by schema name such as "aten::conv2d".
enum {
  hcunet_none,
  hcunet_tensor,   // t
  hcunet_int,      // i
  hcunet_double,   // d
  hcunet_bool,     // i
  hcunet_ints,     // ints[i : i+n]
  hcunet_tensors,  // tensors[i : i+n]
  hcunet_device,   // type i (0 CPU, 1 CUDA, 2 meta), index n
};
typedef struct {
  int32_t tag;
  int32_t n;
  int64_t i;
  double d;
  void* t;
} hcunet_arg;
char* hcunet_find(const char* name, const char* overload, void** op, int* returns_list);
// Missing trailing arguments take their schema's defaults. *results holds the
// capacity of out on entry and the number of tensors returned on exit.
char* hcunet_call(void* op, const hcunet_arg* args, int64_t nargs, const int64_t* ints, void* const* tensors,
                  void** out, int64_t* results);

// Data across the border. dtype is a c10::ScalarType.
char* hcunet_from_data(const void* data, size_t bytes, int dtype, const int64_t* shape, int64_t dims, int device_type,
                       int device_index, void** out);
// The n values of a tensor, see reading.h: begin does not wait; end waits, copies them and frees the reading.
char* hcunet_read_begin(void* tensor, int dtype, int later, void** reading, int64_t* n);
char* hcunet_read_end(void* reading, void* data, int64_t n);
#define HCUNET_MAX_DIMS 8
typedef struct {
  int32_t defined, dtype, dims, device_type, device_index, requires_grad, is_leaf, channels_last;
  int64_t shape[HCUNET_MAX_DIMS];
} hcunet_info;
char* hcunet_inspect(void* tensor, hcunet_info* info);

// Switches the convolutions of winograd.h for all threads; returns what was before. They
// stay off where the processor cannot run them.
int hcunet_fast_convolutions(int on);

// Switches whether libtorch computes products of bfloat16 on the CPU, see convolution.h; returns
// what was. At the start it depends on the processor; for tests.
int hcunet_native_bfloat16(int on);

// A convolution of two dimensions; b may be NULL.
char* hcunet_conv2d(void* x, void* w, void* b, int64_t stride, int64_t padding, int64_t dilation, int64_t groups, void** out);
// A matrix product over the last two dimensions.
char* hcunet_matmul(void* a, void* b, void** out);

// The fused layers of fused.h and fused_cpu.h. Switches them on or off, returns what was; for tests.
int hcunet_fused_layers(int on);
// Whether x is computed by those of fused.h.
char* hcunet_fused(void* x, int* yes);
// A convolution that keeps the size and its ReLU, to so many channels; b may be NULL.
char* hcunet_conv_relu(void* x, void* w, void* b, int64_t channels, void** out);
// A 1x1 convolution, ReLU, pixel shuffle and perhaps a 2x2 average, before the channels of skip.
char* hcunet_upsample(void* x, void* w, void* b, void* skip, int64_t channels, int blur, void** out);
// Whether x is computed by those of fused_cpu.h.
char* hcunet_fused_cpu(void* x, int* yes);
// As hcunet_upsample, for a width that is a multiple of 8; skip may be NULL.
char* hcunet_upsample_cpu(void* x, void* w, void* b, void* skip, int blur, void** out);
// Overwrites y with x + max(y, 0); no backward pass may need the old y.
char* hcunet_add_relu(void* x, void* y, void** out);
// A bilinear resize of a map whose gradient is fast and repeatable on CUDA.
char* hcunet_resize_bilinear(void* x, int64_t height, int64_t width, void** out);

// Autograd.
char* hcunet_set_requires_grad(void* tensor, int on);
char* hcunet_backward(void* tensor, int retain_graph);
char* hcunet_grad(void* tensor, void** out);  // NULL where there is none
char* hcunet_set_grad(void* tensor, void* grad);
char* hcunet_set_data(void* tensor, void* data);
int hcunet_grad_mode(int on);  // returns the mode before; on < 0 only asks

// A step of Adam over n parameters, see adam.h; *done is 0 if these are not its tensors.
char* hcunet_adam(void* const* params, void* const* grads, void* const* means, void* const* squares, int64_t n, const float numbers[9],
                  int* done);

// Autocast on this thread; *previous_* give what to restore.
char* hcunet_autocast(int device_type, int on, int dtype, int* previous_on, int* previous_dtype);

// Process groups (c10d): a store that the processes meet at, and groups in it.
// Timeouts are in milliseconds.
char* hcunet_no_processes(int cuda);  // why there are none, on the CPU or on CUDA; NULL where there are
char* hcunet_store_open(const char* host, int port, int serve, int64_t timeout, void** store);
char* hcunet_store_set(void* store, const char* key, const char* value);
char* hcunet_store_get(void* store, const char* key, int64_t timeout, char** value);  // waits; NULL if it did not come
void hcunet_store_close(void* store);
char* hcunet_group_open(void* store, const char* backend, const char* name, int rank, int size, int64_t timeout,
                        const char* interface, void** group);
void hcunet_group_close(void* group);
char* hcunet_group_sum(void* group, void* const* tensors, int64_t n);  // in place
char* hcunet_group_broadcast(void* group, void* const* tensors, int64_t n, int from);
char* hcunet_group_gather(void* group, void* tensor, void** out, int64_t n);  // every rank gets all n
char* hcunet_group_barrier(void* group);
char* hcunet_group_sum_with_gradient(void* group, void* tensor, void** out);
char* hcunet_reducer_open(void* group, void* const* params, int64_t n, int64_t bucket_bytes, void** reducer);
char* hcunet_reducer_prepare(void* reducer);  // the next backward pass sends the gradients
char* hcunet_reducer_finish(void* reducer);   // they are the sums over all ranks
void hcunet_reducer_close(void* reducer);

// Process-wide state.
int64_t hcunet_release_memory(void);  // how many bytes were kept on the CPU
char* hcunet_seed(uint64_t seed);
void hcunet_set_threads(int n);
int hcunet_threads(void);
int hcunet_blas_threads(void);  // 0 without OpenBLAS
int hcunet_cuda_devices(void);
char* hcunet_cuda_synchronize(int index);
char* hcunet_no_graphs(void);  // why there are none, NULL where there are
char* hcunet_graph_begin(int device, void** graph);
char* hcunet_graph_end(void* graph);
char* hcunet_graph_replay(void* graph);
void hcunet_graph_free(void* graph);
void hcunet_search_convolutions(int on);  // cuDNN measures its algorithms for each new shape

#ifdef __cplusplus
}
#endif
