/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the kernel has and Debian 12's headers lack. Source: the kernel's include/uapi/linux/nsfs.h
 * and mount.h. */

#include <linux/ioctl.h>
#include <stdint.h>

#define UAPI_NS_MNT_GET_INFO _IOR(0xb7, 10, struct uapi_mnt_ns_info)
#define UAPI_NS_MNT_GET_NEXT _IOR(0xb7, 11, struct uapi_mnt_ns_info)
#define UAPI_NS_MNT_GET_PREV _IOR(0xb7, 12, struct uapi_mnt_ns_info)

struct uapi_mnt_ns_info {
	uint32_t size;
	uint32_t nr_mounts;
	uint64_t mnt_ns_id;
};

#define UAPI_MOVE_MOUNT_BENEATH 0x200U

#define UAPI_SYS_STATMOUNT 457
#define UAPI_STATMOUNT_MNT_UIDMAP 0x2000ULL
#define UAPI_STATMOUNT_MNT_GIDMAP 0x4000ULL
#define UAPI_STATX_MNT_ID_UNIQUE 0x4000U

struct uapi_mnt_id_req {
	uint32_t size;
	uint32_t spare;
	uint64_t mnt_id;
	uint64_t param;
	uint64_t mnt_ns_id;
};

/* struct statmount, up to its strings; only the members in use have names. */
struct uapi_statmount {
	uint32_t size;
	uint32_t unused;
	uint64_t mask;
	uint8_t other[136];
	uint32_t mnt_uidmap_num; /* offset 152 */
	uint32_t mnt_uidmap;	 /* in str: strings one after the other, "0 100000 65536" */
	uint32_t mnt_gidmap_num;
	uint32_t mnt_gidmap;
	uint8_t reserved[344];
	char str[];
};
