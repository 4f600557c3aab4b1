/* The one library that Rust's standard library asks for and Wine 8 does not have. Built by
 * .ci/windows where Wine lacks it. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

/* Fills a buffer with random bytes; never fails. */
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    while (length > 0) {
        ULONG part = length > 0x10000 ? 0x10000 : (ULONG)length;
        if (!SystemFunction036(buffer, part))
            TerminateProcess(GetCurrentProcess(), 1);
        buffer += part;
        length -= part;
    }
    return TRUE;
}
