/* A plain C program that uses only the C ABI. */
#include <stdio.h>
#include <string.h>
#include <tensor_bridge/c_api.h>

int main(void) {
  if (strcmp(tb_status_name(TB_OK), "OK") != 0) {
    fprintf(stderr, "tb_status_name(TB_OK) is %s\n", tb_status_name(TB_OK));
    return 1;
  }
  return 0;
}
