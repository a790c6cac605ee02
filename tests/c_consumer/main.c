/* A plain C program: TensorFlow's C API makes a tensor, tensor_bridge/c_api.h does the rest.
 * torch's libraries are in the process, nothing of torch is called. Prints "ok" and returns 0, or
 * says what is wrong. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor_bridge/c_api.h"
#include "tensorflow/c/tf_tensor.h"

static void check(int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "c_consumer: %s (last error: %s)\n", what, tb_last_error());
  exit(1);
}

static TF_Tensor* make_tensor(void) {
  const float values[] = {1, 2, 3, 4, 5, 6};
  const int64_t shape[] = {2, 3};
  TF_Tensor* tensor = TF_AllocateTensor(TF_FLOAT, shape, 2, sizeof(values));
  memcpy(TF_TensorData(tensor), values, sizeof(values));
  return tensor;
}

/* A view needs no torch and outlives the tensor. */
static void view_a_tensor(void) {
  TF_Tensor* source = make_tensor();
  const void* address = TF_TensorData(source);
  tb_tensor* view = NULL;
  int32_t device_type = 0;
  int32_t device_id = -1;
  check(tb_tensor_from_tf(source, &view) == TB_OK, "no view");
  TF_DeleteTensor(source);
  check(tb_live_owners() == 1, "nothing keeps the buffer alive");
  check(tb_tensor_data(view) == address, "the view copies");
  check(tb_tensor_ndim(view) == 2 && tb_tensor_shape(view)[1] == 3, "wrong shape");
  check(tb_tensor_strides(view)[0] == 3, "wrong strides");
  check(strcmp(tb_tensor_dtype(view), "float32") == 0, "wrong dtype");
  check(tb_tensor_nbytes(view) == 24, "wrong size");
  check((tb_tensor_flags(view) & TB_FLAG_READ_ONLY) != 0, "not read-only");
  tb_tensor_device(view, &device_type, &device_id);
  check(device_type == 1 && device_id == 0, "wrong device");
  check(((const float*)tb_tensor_data(view))[5] == 6, "wrong values");
  tb_tensor_release(view);
  check(tb_live_owners() == 0, "the view leaks");
}

/* A torch tensor shares until it is written to. */
static void convert_a_tensor(void) {
  TF_Tensor* source = make_tensor();
  tb_torch_tensor* tensor = NULL;
  tb_tensor* view = NULL;
  void* data = NULL;
  check(tb_tf_to_torch(source, NULL, &tensor) == TB_OK, "not converted");
  check(tb_torch_tensor_view(tensor, &view) == TB_OK, "no view of the torch tensor");
  check(tb_tensor_data(view) == TF_TensorData(source), "not shared");
  tb_tensor_release(view);
  check(tb_torch_tensor_mutable_data(tensor, &data) == TB_OK, "not writable");
  check(data != TF_TensorData(source), "the write would reach TensorFlow");
  ((float*)data)[0] = 100;
  check(((const float*)TF_TensorData(source))[0] == 1, "the write reached TensorFlow");
  tb_torch_tensor_release(tensor);
  TF_DeleteTensor(source);
  check(tb_live_owners() == 0, "the conversion leaks");
}

/* An input is consumed only when the call succeeds. */
static void hand_a_tensor_over(void) {
  TF_Tensor* source = make_tensor();
  tb_torch_tensor* tensor = NULL;
  tb_convert_options options;
  tb_convert_options_init(&options);
  options.copy = 17;
  check(tb_tf_to_torch_consume(source, &options, &tensor) == TB_INVALID_OPTION,
        "copy=17 is accepted");
  check(tensor == NULL, "a failure wrote its result");
  check(strstr(tb_last_error(), "17") != NULL, "the message does not name the value");
  options.copy = TB_COPY_NEVER;
  options.on_write = TB_ON_WRITE_RAISE;
  check(tb_tf_to_torch_consume(source, &options, &tensor) == TB_OK, "not consumed");
  tb_torch_tensor_release(tensor);
  check(tb_live_owners() == 0, "the consumed tensor leaks");
}

static void explain_a_tensor(void) {
  TF_Tensor* source = make_tensor();
  tb_explanation explanation;
  explanation.struct_size = sizeof(explanation);
  check(tb_tf_explain(source, NULL, &explanation) == TB_OK, "no explanation");
  check(explanation.action == TB_ACTION_SHARED, "explained as not shared");
  check(strcmp(explanation.torch_dtype, "torch.float32") == 0, "explained with another dtype");
  TF_DeleteTensor(source);
}

static void read_the_dtype_table(void) {
  tb_dtype_row row;
  int32_t count = 0;
  row.struct_size = sizeof(row);
  while (tb_dtype_row_get(count, &row) == TB_OK) ++count;
  check(count > 30, "the dtype table is short");
  check(tb_dtype_row_get(-1, &row) == TB_INVALID_OPTION, "row -1 exists");
  check(strcmp(tb_status_name(TB_INVALID_OPTION), "INVALID_OPTION") == 0,
        "a status without a name");
}

int main(int argc, char** argv) {
  tb_torch_tensor* tensor = NULL;
  TF_Tensor* source = make_tensor();
  if (argc != 3) {
    fprintf(stderr, "usage: %s TORCH_MAJOR TORCH_MINOR\n", argv[0]);
    return 2;
  }
  view_a_tensor();
  check(tb_tf_to_torch(source, NULL, &tensor) == TB_FRAMEWORK, "converted before torch was named");
  TF_DeleteTensor(source);
  check(tb_use_torch(atoi(argv[1]), atoi(argv[2])) == TB_OK, "torch cannot be used");
  convert_a_tensor();
  hand_a_tensor_over();
  explain_a_tensor();
  read_the_dtype_table();
  puts("ok");
  return 0;
}
