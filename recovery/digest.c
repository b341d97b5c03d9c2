/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

int digest_hex(const char *text, char ret[DIGEST_HEX_SIZE], struct error *err)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int size = 0;

	if (EVP_Digest(text, strlen(text), digest, &size, EVP_sha256(), NULL) != 1 ||
	    size != DIGEST_HEX_SIZE / 2)
		return error_set(err, ERROR_INTERNAL, -EIO,
				 "libcrypto does not compute SHA-256 here");
	for (size_t i = 0; i < size; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", digest[i]);
	return 0;
}
