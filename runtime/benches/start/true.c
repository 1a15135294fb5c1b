/* The command of the measured container: a static program that ends at once. */
int main(void)
{
	return 0;
}
